"""Real guests for tests and for ``nicplug demo``, in namespaces of our own.

``namespace``   network and mount namespaces of this process's own
``guest``       the tiny guest: its image, its domain XML, and a hand inside it
``container``   such a guest as a container of libvirt's LXC driver
``embedded``    libvirt's QEMU driver inside this process
``daemon``      a libvirtd of one's own, which leaves the machine's alone
``network``     bridges, and network namespaces as peers
``ovs``         an Open vSwitch of one's own
``plugin``      all of it as pytest fixtures
"""
