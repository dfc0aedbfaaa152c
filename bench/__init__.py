"""What the router costs and how fast it is, beside its peers: `make bench`, `make bench-quick`, README.md here.

Uses the router from outside only, as a process behind a socket. plan.py says what is measured, run.py in which order,
measure.py how; peers.py starts the proxies, load.py, traffic.py and echo.py are client and replica in one process;
summary.py, reach.py, report.py and chart.py turn the figures into text and pictures. Must not import the router's code.
"""
