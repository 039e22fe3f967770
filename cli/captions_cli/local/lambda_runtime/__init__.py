"""Functions in processes of their own, and the pump that feeds them."""
