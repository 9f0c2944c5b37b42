"""The page that a browser shows at `/`: its files in `static/`, and the paths that serve them."""
