-- Each query refuses the input by returning a row with the reason.
SELECT 'a name has at least one byte' WHERE %(name)s = '';
SELECT 'there are points of that name' FROM points WHERE name = %(name)s;
