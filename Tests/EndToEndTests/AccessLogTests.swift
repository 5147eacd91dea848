import Foundation
import Glibc
import Primitives
import TestSupport
import Testing

@Suite("The access log")
struct AccessLogTests {
    private static func json(_ line: Substring) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "\(line)")
    }

    /// Of a call of the system.
    private static func check(_ result: Int32) throws {
        if result != 0 { throw ProcessError("errno \(errno)") }
    }

    @Test("chosen fields as JSON: what there is, in types that programs expect")
    func json() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let path = "\(directory.path)/access.log"
            let backend = try scene.backend {
                try $0.answer("hello")
                return .keep
            }
            var file = File([File.Service(path: "/a", urls: [backend.url])])
            file.gateway = "requestID: true"
            file.rateLimit = "requestsPerSecond: 1, burstSize: 1"
            let fields =
                "time, node, client, peer, request, method, target, path, protocol, host, status, outcome, received, sent, "
                + "microseconds, service, backend, backendMicroseconds, retries, limit, policy, identity, user, org, tier, "
                + "apiKey, requestID, userAgent, referer, header:X-Odd"
            let node = try scene.node(
                file,
                [
                    "--set", "gateway.accessLog={path: \(path), format: json, fields: [\(fields)]}", "--node-id", "one",
                ])
            let odd = "\"},{\"status\":200,\"x\":\"\\é"
            _ = try node.ask(
                "POST /a/b?c=\"d\\ HTTP/1.1",
                fields:
                    "User-Agent: curl/8 \"x\"\r\nReferer: https://a.example/\r\nX-Odd: \(odd)\r\nX-Request-Id: seven\r\nContent-Length: 2\r\n",
                body: "hi")
            _ = try node.ask("GET /a/b HTTP/1.1", fields: "X-Odd: \(String(repeating: "y", count: 5_000))\r\n")
            _ = try node.ask("GET /none HTTP/1.1")
            _ = try node.ask("nonsense")
            #expect(try node.terminate() == 0)
            let lines = readFile(path).split(separator: "\n")
            try #require(lines.count == 4)
            let first = try Self.json(lines[0])
            let expected: [String: String] = [
                "node": "one", "client": "127.0.0.1", "peer": "127.0.0.1", "request": "POST /a/b?c=\"d\\",
                "method": "POST", "target": "/a/b?c=\"d\\", "path": "/a/b", "protocol": "HTTP/1.1", "host": "test",
                "outcome": "proxied", "service": "main", "backend": backend.url, "limit": "admitted",
                "requestID": "seven", "userAgent": "curl/8 \"x\"", "referer": "https://a.example/",
            ]
            for (name, value) in expected { #expect(first[name] as? String == value, "\(name)") }
            // Bytes beyond ASCII stand one by one.
            #expect((first["header:X-Odd"] as? String)?.hasPrefix("\"},{\"status\":200,\"x\":\"\\Ã") ?? false)
            for (name, value) in ["status": 200, "received": 2, "sent": 5, "retries": 0] {
                #expect(first[name] as? Int == value, "\(name)")
            }
            #expect(first["microseconds"] as? Int ?? -1 >= first["backendMicroseconds"] as? Int ?? 0)
            for name in ["policy", "identity", "user", "org", "tier", "apiKey"] {
                #expect(first[name] == nil, "\(name)")
            }

            let second = try Self.json(lines[1])
            #expect(second["status"] as? Int == 429 && second["outcome"] as? String == "limited")
            #expect(second["limit"] as? String == "refused" && second["policy"] as? String == "default")
            #expect(second["backend"] == nil && second["backendMicroseconds"] == nil)
            #expect((second["header:X-Odd"] as? String)?.count == 1_024)
            let third = try Self.json(lines[2])
            #expect(third["status"] as? Int == 404 && third["service"] == nil && third["limit"] == nil)
            let fourth = try Self.json(lines[3])
            #expect(fourth["status"] as? Int == 400 && fourth["request"] == nil && fourth["path"] == nil)
        }
    }

    @Test("chosen fields as text: one column each, and a hyphen for what is not there")
    func text() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let dead = try scene.backend()
            dead.stop()
            let node = try scene.node(
                File([dead, backend]),
                [
                    "--set",
                    "gateway.accessLog={fields: [status, method, target, retries, userAgent, service, user, protocol]}",
                ])
            for _ in 0..<2 { _ = try node.ask("GET /x\u{7f}y HTTP/1.0".replacing("\u{7f}", with: "\"")) }
            #expect(try node.terminate() == 0)
            let lines = node.output.split(separator: "\n").sorted()
            #expect(
                lines == [
                    "200 \"GET\" \"/x\\\"y\" 0 - main - HTTP/1.0", "200 \"GET\" \"/x\\\"y\" 1 - main - HTTP/1.0",
                ])
        }
    }

    @Test("another configuration means other lines, for the requests that come then")
    func reload() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let (one, two) = ("\(directory.path)/one.log", "\(directory.path)/two.log")
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "logFormat: text"
            let text = file.yaml
            func log(_ value: String) -> String { text.replacing("accessLog: false", with: "accessLog: \(value)") }
            let node = try scene.node(file)
            _ = try node.ask("GET /unseen HTTP/1.1")
            try node.reload(log("{path: \(one), fields: [target, userAgent]}"))
            _ = try node.ask("GET /1 HTTP/1.1", fields: "User-Agent: a\r\n")
            try node.reload(log("{path: \(one), fields: [userAgent, header:X-B, target]}"))
            _ = try node.ask("GET /2 HTTP/1.1", fields: "User-Agent: a\r\nX-B: b\r\n")
            try node.reload(log("{path: \(two), fields: [target], format: json}"))
            _ = try node.ask("GET /3 HTTP/1.1")
            try node.reload(log("false"))
            _ = try node.ask("GET /unseen HTTP/1.1")
            #expect(try node.terminate() == 0)
            #expect(readFile(one) == "\"/1\" \"a\"\n\"a\" \"b\" \"/2\"\n")
            #expect(readFile(two) == "{\"target\":\"/3\"}\n")
        }
    }

    @Test("SIGUSR1 opens the file anew, through the supervisor too", arguments: [false, true])
    func reopened(isSupervised: Bool) throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let path = "\(directory.path)/access.log"
            let backend = try scene.backend()
            let node = try scene.node(
                File([backend]),
                [
                    isSupervised ? "--supervise" : "--no-supervise", "--set",
                    "gateway.accessLog={path: \(path), fields: [target]}",
                ])
            _ = try node.ask("GET /1 HTTP/1.1")
            try eventually("the line is there") { readFile(path) == "\"/1\"\n" }
            try Self.check(unsafe rename(path, path + ".1"))
            node.process.signal(SIGUSR1)
            try eventually("it is told") { node.log.contains("the access log is opened again") }
            _ = try node.ask("GET /2 HTTP/1.1")
            #expect(try node.terminate() == 0)
            #expect(readFile(path) == "\"/2\"\n" && readFile(path + ".1") == "\"/1\"\n")
        }
    }

    @Test("a file that is gone is made again without being told, and a gone folder is told of once")
    func gone() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let folder = "\(directory.path)/logs"
            try Self.check(unsafe mkdir(folder, 0o755))
            let path = "\(folder)/access.log"
            let backend = try scene.backend()
            let node = try scene.node(
                File([backend]), ["--set", "gateway.accessLog={path: \(path), fields: [target]}"])
            _ = try node.ask("GET /1 HTTP/1.1")
            try eventually("the line is there") { readFile(path) == "\"/1\"\n" }
            try Self.check(unsafe unlink(path))
            try eventually("another file is there") {
                _ = try node.ask("GET /2 HTTP/1.1")
                return readFile(path).contains("\"/2\"\n")
            }
            try Self.check(unsafe unlink(path))
            try Self.check(unsafe rmdir(folder))
            try eventually("it is told") {
                let status = try node.ask("GET /3 HTTP/1.1").status
                return status == 200 && node.log.contains("the access log cannot be opened again")
            }
            try Self.check(unsafe mkdir(folder, 0o755))
            try eventually("it is written again") {
                _ = try node.ask("GET /4 HTTP/1.1")
                return readFile(path).contains("\"/4\"\n")
            }
            #expect(node.log.components(separatedBy: "cannot be opened again").count == 2)
            #expect(try node.metrics().value("sluice_access_log_errors_total") ?? 0 > 0)
        }
    }

    @Test("what takes nothing loses lines, says so, and stops nothing")
    func full() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]), ["--set", "gateway.accessLog=/dev/full"])
            for index in 0..<3 { #expect(try node.ask("GET /\(index) HTTP/1.1").status == 200) }
            try eventually("they are counted") {
                try node.metrics().value("sluice_access_log_dropped_total") == 3
            }
            #expect(try node.metrics().value("sluice_access_log_errors_total") ?? 0 > 0)
            #expect(node.log.contains("the access log cannot be written, and lines of it are lost"))
            #expect(node.log.contains("No space left on device"))
            #expect(try node.terminate() == 0)
        }
    }

    @Test("a pipe that nobody reads holds up neither requests nor the end")
    func stuck() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let path = "\(directory.path)/pipe"
            try Self.check(unsafe mkfifo(path, 0o600))
            let reader = unsafe open(path, O_RDONLY | O_NONBLOCK)
            defer { close(reader) }
            let backend = try scene.backend()
            let node = try scene.node(
                File([backend]), ["--set", "gateway.accessLog={path: \(path), fields: [target, header:X-Long]}"])
            let wire = try node.connect()
            let long = String(repeating: "l", count: 1_000)
            for _ in 0..<500 {
                try wire.send("GET / HTTP/1.1\r\nHost: test\r\nX-Long: \(long)\r\n\r\n")
                #expect(try wire.readResponse().status == 200)
            }
            let waiting = try node.metrics().value("sluice_memory_bytes", ["pool": "access_log"])
            #expect(waiting ?? 0 > 100_000)
            #expect(try node.terminate() == 0)
        }
    }
}
