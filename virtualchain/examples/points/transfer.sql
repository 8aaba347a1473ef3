UPDATE balances SET balance = balance - %(amount)s WHERE name = %(name)s AND owner = %(sender)s;

-- If the recipient is the sender, this adds to what the first statement has left.
INSERT INTO balances (name, owner, balance) VALUES (%(name)s, %(recipient)s, %(amount)s)
ON CONFLICT (name, owner) DO UPDATE SET balance = balances.balance + excluded.balance;
