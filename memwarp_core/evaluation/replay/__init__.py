"""How good a detector is on recordings, with the time that it takes: `memwarp replay`."""
