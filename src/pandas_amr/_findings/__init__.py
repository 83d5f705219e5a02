"""Findings: checked records, one per unit, stored as typed columns."""
