"""Measures servers from outside, as their users feel them: the same work for each, in turn, over HTTP."""
