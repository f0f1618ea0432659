"""Pages: the contract, the API reference for people, and what each problem means. Nothing comes from elsewhere."""
