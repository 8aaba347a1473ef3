INSERT INTO points (name, issuer, amount, issued_at) VALUES (%(name)s, %(issuer)s, %(amount)s, %(block_id)s);
INSERT INTO balances (name, owner, balance) VALUES (%(name)s, %(issuer)s, %(amount)s);
