"use strict";

document.getElementById("map").append(...headMap(data.models));
