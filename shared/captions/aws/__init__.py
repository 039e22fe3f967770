"""Clients, and DynamoDB's items."""
