"""Engines: what computes with a model. `interface` says what an engine offers, `registry` finds one by its name."""
