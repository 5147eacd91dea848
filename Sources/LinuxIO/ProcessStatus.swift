import CLinux
import Glibc
public import Primitives

/// What this process takes of the machine, as the kernel and the allocator say. For metrics; reading takes some system
/// calls.
public struct ProcessStatus: Sendable {
    /// Processor time of all threads, in user space and in the kernel.
    public var cpu = TimeSpan.zero
    /// Bytes of memory that are resident, and of addresses that are mapped.
    public var resident = 0
    public var virtual = 0
    public var openDescriptors = 0
    public var maxDescriptors = 0
    public var threads = 0
    /// Bytes of the allocator: given out, free inside of it, and mapped for single large blocks.
    public var heapUsed = 0
    public var heapFree = 0
    public var heapMapped = 0

    public static func current() -> ProcessStatus {
        var status = ProcessStatus()
        var usage = rusage()
        if unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            status.cpu = span(usage.ru_utime) + span(usage.ru_stime)
        }
        // proc(5): size resident shared text lib data dt, in pages.
        let pages = InputFile.read("/proc/self/statm").split(separator: " ").compactMap { Int($0) }
        if pages.count >= 2 {
            let page = sysconf(Int32(_SC_PAGESIZE))
            status.virtual = pages[0] * page
            status.resident = pages[1] * page
        }
        for line in InputFile.read("/proc/self/status").split(separator: "\n") where line.hasPrefix("Threads:") {
            status.threads = Int(line.filter(\.isNumber)) ?? 0
        }
        status.openDescriptors = countDescriptors()
        status.maxDescriptors = DescriptorLimit.current().soft
        let heap = mallinfo2()
        status.heapUsed = Int(clamping: heap.uordblks)
        status.heapFree = Int(clamping: heap.fordblks)
        status.heapMapped = Int(clamping: heap.hblkhd)
        return status
    }

    private static func span(_ time: timeval) -> TimeSpan {
        .seconds(Int64(time.tv_sec)) + .microseconds(Int64(time.tv_usec))
    }

    private static func countDescriptors() -> Int {
        guard let listing = unsafe opendir("/proc/self/fd") else { return 0 }
        defer { unsafe closedir(listing) }
        var count = 0
        while unsafe readdir(listing) != nil { count += 1 }
        // The two names of directories, and the descriptor of this listing.
        return max(0, count - 3)
    }

    /// When the process started: microseconds since 1970, as exact as a clock tick.
    public static func startMicroseconds() -> Int64 {
        // proc(5): the 22nd field, in ticks since the machine started; the name in parentheses may hold spaces.
        let stat = InputFile.read("/proc/self/stat")
        let fields = stat.split(separator: ")").last?.split(separator: " ") ?? []
        let boot = InputFile.read("/proc/stat").split(separator: "\n").first { $0.hasPrefix("btime ") }
        let ticks = Int64(sysconf(Int32(_SC_CLK_TCK)))
        guard fields.count > 19, let start = Int64(fields[19]), ticks > 0,
            let seconds = boot.flatMap({ Int64($0.dropFirst(6)) })
        else { return 0 }
        return seconds * 1_000_000 + start * 1_000_000 / ticks
    }
}

/// What can be seen of another process (proc(5)).
public struct ProcessGlance: Sendable {
    /// What it was started with, its own name in front.
    public let arguments: [String]
    private let blocked: UInt64

    /// `nil` where there is none, or it may not be seen.
    public init?(_ id: Int32) {
        let line = InputFile.read("/proc/\(id)/cmdline")
        guard !line.isEmpty else { return nil }
        arguments = line.split(separator: "\0").map(String.init)
        let mask = InputFile.read("/proc/\(id)/status").split(separator: "\n").first { $0.hasPrefix("SigBlk:") }
        blocked = mask.flatMap { UInt64($0.dropFirst(7).filter { $0.isHexDigit }, radix: 16) } ?? 0
    }

    /// Whether it takes a signal when it asks for it, and is not ended by it.
    public func blocks(_ signal: Int32) -> Bool { blocked >> UInt64(signal - 1) & 1 == 1 }
}
