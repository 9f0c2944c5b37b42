"""Answers of models rated blind: collected from servers, shown to raters without names, and put into a table."""
