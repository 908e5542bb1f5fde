"""What proposed budgets would have done to recorded usage: the real METER fold, BUDGET and gate, without a broker."""
