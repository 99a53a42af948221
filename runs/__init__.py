"""The run files that come with Headrace: `headrace run NAME` takes `NAME.toml` from here."""
