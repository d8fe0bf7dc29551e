"""Views of the attention of one text. They never call `plt.show` or change global styles."""

from tl_attnstats.views.head_view import head_view
from tl_attnstats.views.model_view import model_view
from tl_attnstats.views.neuron_view import neuron_view

__all__ = ["head_view", "model_view", "neuron_view"]
