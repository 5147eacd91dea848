import LinuxIO

/// Every random test runs from these seeds, and names the one it failed with: put it in this list to replay it.
let seeds: [UInt64] = [0, .max, SystemClock.random64()]
