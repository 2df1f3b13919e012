"""Single steps, without sockets and disks: timed by pytest-benchmark, counted in instructions by callgrind."""
