"""What every test shares: nothing but the repository on the path."""
