-- A sender without points of that name has no row: that is too few as well.
SELECT 'the sender has too few points' WHERE NOT EXISTS (
    SELECT 1 FROM balances AS b WHERE b.name = %(name)s AND b.owner = %(sender)s AND b.balance >= %(amount)s
);
