// Tests of LinuxIO
