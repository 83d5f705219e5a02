"""What a run gives: the result, how it shows itself, is saved, evaluated and verified."""
