from tests.plotting.conftest import figures as figures  # pytest finds fixtures by their names here
