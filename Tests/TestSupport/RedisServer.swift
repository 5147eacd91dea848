// A real redis-server for a test: its own directory, a free port, nothing written to disk, gone with the object.

package import Glibc
package import Hiredis
package import LinuxIO
package import Primitives

package struct RedisServerError: Error, CustomStringConvertible {
    package let description: String
}

package final class RedisServer {
    package let directory: String
    private let held: HeldPort
    package var port: UInt16 { held.port }
    package private(set) var pid: pid_t = 0
    private let arguments: [String]

    package var socketPath: String { "\(directory)/redis.sock" }

    /// Starts a server and waits until it answers.
    ///
    /// - Parameter arguments: more options, such as `["--requirepass", "secret"]`.
    package init(_ arguments: [String] = []) throws {
        directory = try Self.temporaryDirectory()
        held = try HeldPort()
        self.arguments = arguments
        try start()
    }

    deinit {
        kill()
        _ = unsafe unlink(socketPath)
        for name in ["nodes.conf", "dump.rdb"] { _ = unsafe unlink("\(directory)/\(name)") }
        _ = unsafe rmdir("\(directory)/dump.rdb")
        _ = unsafe rmdir(directory)
    }

    private static func temporaryDirectory() throws -> String {
        var template = Array("/tmp/sluice-redis-XXXXXX\0".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw RedisServerError(description: "no temporary directory") }
        return String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Starts the server again after `kill`. Its data is gone.
    package func start() throws {
        guard pid == 0 else { return }
        let all =
            [
                "redis-server", "--port", "\(port)", "--bind", "127.0.0.1", "--unixsocket", socketPath, "--save", "",
                "--appendonly", "no", "--dir", directory, "--loglevel", "warning", "--logfile", "/dev/null",
                "--enable-debug-command", "yes",
            ] + arguments
        var pointers = unsafe all.map { unsafe strdup($0) } + [nil]
        defer {
            for index in all.indices { unsafe free(pointers[index]) }
        }
        var child: pid_t = 0
        let result = unsafe posix_spawnp(&child, "redis-server", nil, nil, &pointers, environ)
        guard result == 0 else { throw RedisServerError(description: "redis-server does not start: error \(result)") }
        pid = child
        try waitUntilReady()
    }

    private func waitUntilReady() throws {
        for _ in 0..<1_000 {
            if let socket = try? BlockingSocket(unix: socketPath),
                (try? socket.send(Array("PING\r\n".utf8).span)) != nil,
                let answer = try? socket.receive(), !answer.isEmpty
            {
                return
            }
            var status: Int32 = 0
            if unsafe waitpid(pid, &status, WNOHANG) == pid {
                pid = 0
                throw RedisServerError(description: "redis-server ended at once")
            }
            usleep(5_000)
        }
        throw RedisServerError(description: "redis-server does not answer")
    }

    /// Ends the server as a crash would.
    package func kill() {
        guard pid > 0 else { return }
        _ = Glibc.kill(pid, SIGKILL)
        var status: Int32 = 0
        _ = unsafe waitpid(pid, &status, 0)
        pid = 0
        _ = unsafe unlink(socketPath)
    }

    /// Lets it take no writes, because its last attempt to save its data has failed: `MISCONF`.
    package func failToSave() throws {
        // A directory stands where the file would have to.
        _ = unsafe mkdir("\(directory)/dump.rdb", 0o700)
        let client = try client()
        try client("CONFIG", "SET", "save", "3600 1")
        try client("SET", "unsaved", "1")
        try client("BGSAVE")
        for _ in 0..<1_000 {
            if try client("INFO", "persistence").contains("rdb_last_bgsave_status:err") { return }
            usleep(5_000)
        }
        throw RedisServerError(description: "redis-server has saved its data")
    }

    /// Lets it hang: connections stay, nothing is answered.
    package func pause() { _ = Glibc.kill(pid, SIGSTOP) }
    package func resume() { _ = Glibc.kill(pid, SIGCONT) }

    /// The processor time that the server has used so far.
    package func processorTime() throws -> TimeSpan {
        let descriptor = unsafe open("/proc/\(pid)/stat", O_RDONLY)
        guard descriptor >= 0 else { throw RedisServerError(description: "no /proc/\(pid)/stat") }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 1_024)
        let n = unsafe read(descriptor, &bytes, bytes.count)
        // The name in parentheses may hold spaces; behind it, fields 14 and 15 are user and system time in ticks.
        let fields = String(decoding: bytes.prefix(max(0, n)), as: UTF8.self).split(separator: ")").last?.split(
            separator: " ")
        guard let fields, fields.count > 13, let user = Int64(fields[11]), let system = Int64(fields[12]) else {
            throw RedisServerError(description: "/proc/\(pid)/stat has another shape")
        }
        return .milliseconds((user + system) * 1_000 / Int64(sysconf(Int32(_SC_CLK_TCK))))
    }

    package func client() throws -> RedisTestClient { try RedisTestClient(BlockingSocket(unix: socketPath)) }
}

/// A socket that waits. For tests.
package final class BlockingSocket {
    private let raw: Int32

    package convenience init(unix path: String) throws(SystemError) { try self.init(to: .unix(path)) }

    /// On loopback.
    package convenience init(port: UInt16) throws(SystemError) {
        try self.init(to: .tcp(SocketAddress(ip: .v4Loopback, port: port)))
    }

    private init(to endpoint: Endpoint) throws(SystemError) {
        let connected = try Socket.connect(to: endpoint)
        raw = connected.release()
        _ = fcntl(raw, F_SETFL, 0)
        // A connection over TCP is only under way: sending waits for it.
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        _ = unsafe setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(raw) }

    package func send(_ bytes: Span<UInt8>) throws {
        var offset = 0
        while offset < bytes.count {
            let rest = bytes.extracting(offset..<bytes.count)
            let raw = self.raw
            let n = unsafe rest.withUnsafeBufferPointer {
                unsafe Glibc.send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard n > 0 else { throw RedisServerError(description: "the server is gone") }
            offset += n
        }
    }

    /// What has arrived, at least one byte; empty at the end.
    package func receive() throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let n = unsafe recv(raw, &bytes, bytes.count, 0)
        guard n >= 0 else { throw RedisServerError(description: "the server does not answer") }
        return Array(bytes.prefix(n))
    }
}

/// A client that asks one thing after the other. For tests.
package final class RedisTestClient {
    private let socket: BlockingSocket
    private var reader = ReplyReader()
    private var writer = CommandWriter()

    package init(_ socket: BlockingSocket) { self.socket = socket }

    /// A command's reply in a notation: `'text'`, `7`, `nil`, `+OK`, `-ERR …`, `[a b]`.
    @discardableResult
    package func callAsFunction(_ arguments: String...) throws -> String {
        for argument in arguments { writer.add(argument) }
        writer.end()
        return try Self.notation(roundTrip())
    }

    /// The same for arguments in a list.
    package func ask(_ arguments: [String]) throws -> String {
        for argument in arguments { writer.add(argument) }
        writer.end()
        return try Self.notation(roundTrip())
    }

    /// The server's time.
    package func time() throws -> RedisTime {
        writer.add("TIME")
        writer.end()
        let reply = try roundTrip()
        guard let seconds = reply.integer(1), let microseconds = reply.integer(2) else {
            throw RedisServerError(description: "no time: \(Self.notation(reply))")
        }
        return RedisTime(microseconds: seconds * 1_000_000 + microseconds)
    }

    /// Sends the commands that `body` ends, within `MULTI` and `EXEC`; returns what `EXEC` answered.
    package func transaction(_ body: (inout CommandWriter) -> Void) throws -> Reply {
        writer.add("MULTI")
        writer.end()
        body(&writer)
        writer.add("EXEC")
        writer.end()
        return try finalReply { $0.kind(0) == .status }
    }

    /// Sends one command that `body` ends.
    package func command(_ body: (inout CommandWriter) -> Void) throws -> Reply {
        body(&writer)
        return try roundTrip()
    }

    private func roundTrip() throws -> Reply { try finalReply { _ in false } }

    private func finalReply(skipping isPart: (Reply) -> Bool) throws -> Reply {
        try send(writer.output)
        writer.output.clear()
        while true {
            while try reader.next() {
                if !isPart(reader.reply) { return reader.reply }
            }
            let bytes = try socket.receive()
            guard !bytes.isEmpty else { throw RedisServerError(description: "the server closed the connection") }
            reader.feed(bytes.span)
        }
    }

    private func send(_ buffer: borrowing ByteBuffer) throws { try socket.send(buffer.bytes) }

    package static func notation(_ reply: Reply) -> String {
        var index = 0
        func value() -> String {
            let i = index
            index += 1
            switch reply.kind(i) {
            case .bulk: return "'\(reply.text(i))'"
            case .status: return "+\(reply.text(i))"
            case .error: return "-\(reply.text(i))"
            case .integer: return "\(reply.integer(i) ?? 0)"
            case .null: return i < reply.count ? "nil" : "MISSING"
            case .array:
                let elements = (0..<(reply.elementCount(i) ?? 0)).map { _ in value() }
                return "[" + elements.joined(separator: " ") + "]"
            }
        }
        let text = value()
        return index == reply.count ? text : text + " and more"
    }
}
