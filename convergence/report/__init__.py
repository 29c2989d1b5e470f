"""What people look at: tables now; needs rich, so nothing below the command line imports it."""
