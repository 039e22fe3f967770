"""AWS on one port: moto, its repairs, events and schedules."""
