"""The methods that the papers compare, by one interface: `description` lists them, `asking` asks one."""
