ALTER TABLE vc.writer ADD COLUMN metrics jsonb;
COMMENT ON COLUMN vc.writer.metrics IS 'What it counted until then: an array of objects with name, labels and value; null if an earlier version ran.';

CREATE VIEW virtualchain.metrics AS
SELECT m.name, m.labels, m.value
FROM vc.writer AS w, LATERAL jsonb_to_recordset(w.metrics) AS m (name text, labels jsonb, value double precision);
COMMENT ON VIEW virtualchain.metrics IS 'What the writer counted until its last report, as Prometheus gets it: see docs/monitoring.md; no row before the first start.';
COMMENT ON COLUMN virtualchain.metrics.name IS 'The name of the metric.';
COMMENT ON COLUMN virtualchain.metrics.labels IS 'Its labels, an object of texts.';
COMMENT ON COLUMN virtualchain.metrics.value IS 'Its value.';
