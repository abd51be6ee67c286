"""What exists and what may ship: catalog, plan, ledger, promotion, channel."""
