"""The libraries that the program needs, one a line, out of the setup.cfg on standard input."""

import configparser
import sys

config = configparser.ConfigParser()
config.read_file(sys.stdin)
sys.stdout.write(config["options"]["install_requires"].strip() + "\n")
