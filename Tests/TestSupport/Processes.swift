// The real binary as a child process. Its output goes to files, so that it never waits for a reader.

package import Glibc
import LinuxIO
import Primitives

package struct ProcessError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// A directory that goes with the object.
package final class TemporaryDirectory {
    package let path: String

    package init() throws {
        var template = Array("/tmp/sluice-test-XXXXXX\0".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw ProcessError("no temporary directory") }
        path = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        if let listing = unsafe opendir(path) {
            while let entry = unsafe readdir(listing) {
                let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != ".", name != ".." { _ = unsafe unlink("\(path)/\(name)") }
            }
            unsafe closedir(listing)
        }
        _ = unsafe rmdir(path)
    }

    /// Writes a file; returns its path.
    package func write(_ text: String, to name: String) throws -> String { try write(Array(text.utf8), to: name) }

    package func write(_ bytes: [UInt8], to name: String) throws -> String {
        let file = "\(path)/\(name)"
        let raw = unsafe open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard raw >= 0 else { throw ProcessError("\(file) cannot be written") }
        defer { close(raw) }
        guard unsafe Glibc.write(raw, bytes, bytes.count) == bytes.count else {
            throw ProcessError("\(file) cannot be written")
        }
        return file
    }
}

/// The whole of a file; empty where there is none.
package func readFile(_ path: String) -> String {
    let raw = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard raw >= 0 else { return "" }
    defer { close(raw) }
    var all: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 65_536)
    while true {
        let n = unsafe read(raw, &piece, piece.count)
        guard n > 0 else { return String(decoding: all, as: UTF8.self) }
        all += piece[..<n]
    }
}

/// Whether a program is there to be run.
package func isInstalled(_ path: String) -> Bool { unsafe access(path, X_OK) == 0 }

/// Waits until a condition holds that no event announces. At most a minute: sentinels on a busy machine do nothing for
/// half of one.
package func eventually(_ what: String, _ condition: () throws -> Bool) throws {
    let limit = SystemClock.monotonic() + .seconds(60)
    while SystemClock.monotonic() < limit {
        if try condition() { return }
        usleep(5_000)
    }
    throw ProcessError("waited in vain: \(what)")
}

package final class ChildProcess {
    package private(set) var pid: pid_t = 0
    private let directory: TemporaryDirectory
    private var status: Int32?

    /// - Parameter environment: what is added to this process's own.
    package init(_ program: String, _ arguments: [String], environment: [String: String] = [:]) throws {
        directory = try TemporaryDirectory()
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        for (number, name) in [(Int32(1), "output"), (2, "errors")] {
            let path = "\(directory.path)/\(name)"
            unsafe posix_spawn_file_actions_addopen(&actions, number, path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        }
        // The threads of a test run block signals of their own; a child starts with none blocked.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))

        var variables = environment.map { "\($0.key)=\($0.value)" }
        var own = unsafe environ
        while let variable = unsafe own.pointee {
            unsafe variables.append(String(cString: variable))
            unsafe own += 1
        }
        var argv = unsafe ([program] + arguments).map { unsafe strdup($0) } + [nil]
        var envp = unsafe variables.map { unsafe strdup($0) } + [nil]
        defer {
            for index in unsafe argv.indices { unsafe free(argv[index]) }
            for index in unsafe envp.indices { unsafe free(envp[index]) }
        }
        let result = unsafe posix_spawn(&pid, program, &actions, &attributes, &argv, &envp)
        guard result == 0 else { throw ProcessError("\(program) does not start: error \(result)") }
    }

    deinit { kill() }

    package var output: String { readFile("\(directory.path)/output") }
    package var errors: String { readFile("\(directory.path)/errors") }

    /// Its exit code, or minus the signal that ended it; `nil` while it runs.
    package var exit: Int32? {
        if let status { return status }
        var raw: Int32 = 0
        guard pid > 0, unsafe waitpid(pid, &raw, WNOHANG) == pid else { return nil }
        let code = raw & 0x7f == 0 ? (raw >> 8) & 0xff : -(raw & 0x7f)
        status = code
        return code
    }

    package func waitForExit() throws -> Int32 {
        try eventually("process \(pid) ends") { exit != nil }
        return exit ?? 0
    }

    package func signal(_ number: Int32) { if exit == nil { _ = Glibc.kill(pid, number) } }

    /// Stops it, and returns when none of its threads runs. `signal(SIGCONT)` lets it go on.
    package func suspend() throws {
        signal(SIGSTOP)
        try eventually("process \(pid) stands still") {
            guard let listing = unsafe opendir("/proc/\(pid)/task") else { return false }
            defer { unsafe closedir(listing) }
            while let entry = unsafe readdir(listing) {
                let name = unsafe withUnsafePointer(to: entry.pointee.d_name) {
                    unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
                }
                guard Int(name) != nil else { continue }
                // `pid (name) state …`
                let status = readFile("/proc/\(pid)/task/\(name)/stat")
                guard status.split(separator: ")").last?.hasPrefix(" T") == true else { return false }
            }
            return true
        }
    }

    package func kill() {
        guard exit == nil, pid > 0 else { return }
        _ = Glibc.kill(pid, SIGKILL)
        var raw: Int32 = 0
        _ = unsafe waitpid(pid, &raw, 0)
        status = -SIGKILL
    }

    /// The memory that it holds, in bytes (VmRSS).
    package var residentBytes: Int {
        for line in readFile("/proc/\(pid)/status").split(separator: "\n") where line.hasPrefix("VmRSS:") {
            return (Int(line.filter(\.isNumber)) ?? 0) * 1_024
        }
        return 0
    }

    /// Lowers or raises how many descriptors it may have open, while it runs.
    package func limitDescriptors(to count: Int) throws {
        let tool = try ChildProcess("/usr/bin/prlimit", ["--pid", "\(pid)", "--nofile=\(count):"])
        guard try tool.waitForExit() == 0 else { throw ProcessError("prlimit: \(tool.errors)") }
    }

    /// Descriptors that it has open.
    package var descriptorCount: Int {
        guard let listing = unsafe opendir("/proc/\(pid)/fd") else { return 0 }
        defer { unsafe closedir(listing) }
        var count = 0
        while unsafe readdir(listing) != nil { count += 1 }
        return count - 2
    }
}
