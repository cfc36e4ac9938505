# A Raspberry Pi Pico that plays sensor (MicroPython 1.20 or later): what the test writes to its USB port goes out on its
# serial line, byte for byte. The lamp is on while there is something to say. It says nothing of its own: a scenario
# decides what the sensor says, and when.
#
# Wiring and flashing: hil/README.md.

import select
import sys

import micropython
from machine import Pin, UART

# As [[serial]] of the scenarios has it: 9600 8N1.
line = UART(0, baudrate=9600, bits=8, parity=None, stop=1, tx=Pin(0), rx=Pin(1))
lamp = Pin("LED", Pin.OUT, value=0)

# No byte is a command here. Hold BOOTSEL while plugging in to flash the Pico anew.
micropython.kbd_intr(-1)
heard = select.poll()
heard.register(sys.stdin, select.POLLIN)

while True:
    # Up to a second without anything to do, then the lamp goes out.
    if heard.poll(1000):
        lamp.on()
        line.write(sys.stdin.buffer.read(1))
    else:
        lamp.off()
