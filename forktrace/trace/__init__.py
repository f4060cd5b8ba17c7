"""The bridge: event rows go in, a trace file comes out, and the other way round."""
