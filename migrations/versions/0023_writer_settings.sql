ALTER TABLE vc.writer ADD COLUMN settings jsonb CHECK (jsonb_typeof(settings) = 'object');
COMMENT ON COLUMN vc.writer.settings IS 'The settings that decide what it takes and does, by name: the next writer says which of them changed; null if an earlier version wrote.';
