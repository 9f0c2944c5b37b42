"""A simulated device under the real governor, in virtual time: for tests, figures and the pictures of docs/heat.md."""
