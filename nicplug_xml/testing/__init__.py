"""Real guests for tests and for ``nicplug demo``, in namespaces of our own.

``namespace``   network and mount namespaces of this process's own
``guest``       the tiny guest: its image, its domain XML, and a hand inside it
``embedded``    libvirt's QEMU driver inside this process
``daemon``      a libvirtd of one's own, which leaves the machine's alone
``network``     bridges, and network namespaces as peers
``plugin``      all of it as pytest fixtures
"""
