"""A command of plumbum's."""

from plumbum import local

local["true"]()  # forks # reaps
