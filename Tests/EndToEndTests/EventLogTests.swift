import Glibc
import Primitives
import TestSupport
import Testing

/// A node whose standard error is a pipe that somebody reads, or nobody.
private final class Muted {
    let process: ChildProcess
    let reader: Int32
    let file: String
    let admin: SocketAddress
    private let held: HeldPort
    private let directory: TemporaryDirectory

    init(_ file: File, _ arguments: [String] = []) throws {
        directory = try TemporaryDirectory()
        let pipe = "\(directory.path)/events"
        try #require(unsafe mkfifo(pipe, 0o600) == 0)
        // Both directions: it is there before the node, and never at its end.
        reader = unsafe open(pipe, O_RDWR | O_NONBLOCK | O_CLOEXEC)
        let (setSize, page) = (Int32(1_031), Int32(4_096))
        try #require(fcntl(reader, setSize, page) >= 4_096)
        var file = file
        held = try HeldPort()
        file.admin = "\(held.address)"
        admin = held.address
        self.file = try directory.write(file.yaml, to: "gateway.yaml")
        let command = ["-c", "exec \"$@\" 2>\"$EVENTS\"", "sh", try SluiceNode.binary(), "run", "--config", self.file]
        process = try ChildProcess("/bin/sh", command + arguments, environment: ["EVENTS": pipe])
        try eventually("it serves") { (try? ask("/readyz").status) == 200 }
    }

    deinit { close(reader) }

    func write(_ yaml: String) throws { _ = try directory.write(yaml, to: "gateway.yaml") }

    func ask(_ path: String, _ method: String = "GET") throws -> WireMessage {
        let wire = try Wire.connect(to: admin)
        try wire.send(
            "\(method) \(path) HTTP/1.1\r\nHost: \(admin)\r\nConnection: close\r\n"
                + "Authorization: Bearer a-secret-of-tests\r\n\r\n")
        return try wire.readResponse(to: method)
    }

    func number(_ name: String, in path: String) throws -> Int {
        let text = try ask(path).text
        let start = try #require(text.firstRange(of: "\"\(name)\":")?.upperBound)
        return try #require(Int(text[start...].prefix { $0.isNumber }))
    }

    func lost() throws -> Double {
        MetricsReading(try ask("/metrics").text).value("sluice_event_log_dropped_total") ?? 0
    }

    /// What the pipe holds now.
    func read() -> String {
        var all: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65_536)
        while case let n = unsafe Glibc.read(reader, &piece, piece.count), n > 0 { all += piece[..<n] }
        return String(decoding: all, as: UTF8.self)
    }
}

@Suite("The event log")
struct EventLogTests {
    @Test("who stops reading it stops nothing else, and is told what was lost", arguments: [true, false])
    func stuck(isSupervised: Bool) throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "adminToken: a-secret-of-tests"
            let node = try Muted(file, [isSupervised ? "--supervise" : "--no-supervise"])
            var good = file
            good.admin = "\(node.admin)"
            // Each refused file fills the pipe many times over.
            let bad = good.yaml + (0..<400).map { "\(String(repeating: "b", count: 200))\($0): 1\n" }.joined()
            func reload(_ yaml: String) throws {
                try node.write(yaml)
                let before = try node.number("answered", in: "/api/config")
                #expect(try node.ask("/api/reload", "POST").status == 202)
                try eventually("it is read") { try node.number("answered", in: "/api/config") > before }
            }
            try eventually("lines are lost") {
                try reload(bad)
                return try node.lost() > 0
            }
            #expect(try node.ask("/healthz").status == 200)
            #expect(try node.ask("/readyz").status == 200)
            #expect(try node.ask("/api/overview").text.contains("was refused"))
            try reload(good.yaml)
            #expect(!(try node.ask("/api/overview").text.contains("was refused")))
            let pid = try node.number("pid", in: "/api/node")
            if isSupervised {
                // Neither what a crash says nor what the parent says of it may take for ever.
                _ = kill(pid_t(pid), SIGSEGV)
                try eventually("another serves") { (try? node.number("pid", in: "/api/node")) ?? pid != pid }
                #expect(try node.number("crashes", in: "/api/node") == 1)
            } else {
                var text = ""
                try eventually("it says so when it is read again") {
                    text += node.read()
                    return text.contains("the event log keeps up again")
                }
                #expect(text.contains("lost="))
                try reload(good.yaml)
                try eventually("it goes on") {
                    text += node.read()
                    return text.contains("configuration reloaded")
                }
                try reload(bad)
                try reload(bad)
            }
            node.process.signal(SIGTERM)
            #expect(try node.process.waitForExit() == 0)
        }
    }

    @Test("every line follows the configuration in force, the parent's too")
    func follows() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            let node = try scene.node(file, ["--supervise"])
            var seen = node.log.utf8.count
            func newLines() -> [Substring] {
                let text = String(decoding: Array(node.log.utf8.dropFirst(seen)), as: UTF8.self)
                seen += text.utf8.count
                return text.split(separator: "\n")
            }
            file.gateway = "logFormat: json"
            try node.reload(file.yaml)
            try eventually("it is told") { node.log.contains("\"message\":\"configuration reloaded\"") }
            _ = newLines()
            let pid = try node.number("pid")
            _ = kill(pid_t(pid), SIGKILL)
            try eventually("another serves") { (try? node.number("pid")) ?? pid != pid }
            let crash = newLines()
            #expect(crash.contains { $0.contains("is started again") })
            #expect(crash.allSatisfy { $0.hasPrefix("{") }, "\(crash)")
            try eventually("it has said all") { node.log.contains("\"message\":\"serving\"") }
            file.gateway = "logFormat: json, logLevel: error"
            try node.reload(file.yaml)
            _ = newLines()
            let next = try node.number("pid")
            _ = kill(pid_t(next), SIGKILL)
            try eventually("another serves") { (try? node.number("pid")) ?? next != next }
            #expect(newLines().allSatisfy { $0.contains("\"level\":\"error\"") })
            file.gateway = "logFormat: text, logLevel: info"
            try node.reload(file.yaml)
            #expect(try node.terminate() == 0)
            let end = newLines()
            for word in ["configuration reloaded", "stopping", "draining", "stopped"] {
                #expect(end.contains { $0.contains(" notice \(word)") }, "\(word) in \(end)")
            }
        }
    }

    @Test("a closed standard error is nobody's file", arguments: ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
    func closed(redirection: String) throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            let port = try scene.freePort().port
            file.listen = "127.0.0.1:\(port)"
            let directory = try TemporaryDirectory()
            let path = try directory.write(file.yaml, to: "gateway.yaml")
            let process = try ChildProcess(
                "/bin/sh",
                [
                    "-c", "exec \"$@\" \(redirection)", "sh", try SluiceNode.binary(), "run", "--config", path, "--set",
                    "gateway.accessLog=true",
                ])
            let address = SocketAddress(ip: .v4Loopback, port: port)
            try eventually("it serves") { (try? Wire.connect(to: address)) != nil }
            let wire = try Wire.connect(to: address)
            try wire.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            #expect(try wire.readResponse().status == 200)
            process.signal(SIGTERM)
            #expect(try process.waitForExit() == 0)
            let lines = process.output.split(separator: "\n")
            #expect(lines.count == (redirection.contains(" >&-") ? 0 : 1))
            #expect(lines.allSatisfy { $0.contains("\"GET /\" 200") })
            #expect(process.errors.isEmpty)
        }
    }
}
