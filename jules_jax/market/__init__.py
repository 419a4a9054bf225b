"""Market: bars from files or from the simulator, features, and the table on the device."""
