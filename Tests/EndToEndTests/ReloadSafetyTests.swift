import Foundation
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("A reload under bad signs")
struct ReloadSafetyTests {
    @Test("a service in front, and another backend beside one that fails and was the last: the new order counts")
    func grows() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let dead = try scene.freePort().url
            let health = "active: false, failures: 1"
            let node = try scene.node(File([File.Service(urls: [dead], health: health)]))
            #expect(try node.ask().status == 502)
            try eventually("it is kept as the last") {
                try node.admin("/api/backends").text.contains("connection refused")
            }
            let main = File.Service(urls: [dead, one.url], health: health)
            let front = File.Service(name: "front", path: "/front", urls: [one.url])
            try node.reload(File([front, main]).yaml)
            for _ in 0..<4 { #expect(try node.ask().text == "one") }
            #expect(try node.terminate() == 0)
        }
    }

    @Test("what is refused leaves no open log and no thread, and what is taken opens no log twice")
    func leavesNothing() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let folder = try TemporaryDirectory()
            func yaml(_ log: String, _ more: String = "") -> String {
                File([one]).yaml.replacing("accessLog: false", with: "accessLog: \"\(folder.path)/\(log)\"") + more
            }
            let node = try scene.node(File([one]))
            try node.reload(yaml("a.log"))
            func threads() throws -> Int {
                let tasks = "/proc/\(node.process.pid)/task"
                return try FileManager.default.contentsOfDirectory(atPath: tasks)
                    .count { readFile("\(tasks)/\($0)/comm") == "access-log\n" }
            }
            func files() throws -> [String] {
                let folder = "/proc/\(node.process.pid)/fd"
                return try FileManager.default.contentsOfDirectory(atPath: folder)
                    .compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)") }
                    .filter { $0.hasSuffix(".log") }
            }
            try eventually("one log is open") { try threads() == 1 }
            try node.reload(yaml("a.log"))
            let taken = try SilentListener()
            let busy = yaml("b.log").replacing(
                "port: \"127.0.0.1:0\"", with: "port: \"127.0.0.1:\(taken.address.port)\"")
            let unreadable = yaml("b.log", "auth: {jwt: [{algorithms: [HS256], jwksFile: \"/nowhere/keys.json\"}]}\n")
            let limits =
                "rateLimit: {redisURL: \"redis://127.0.0.1:\(try scene.redis().port)\", "
                + "decisionLog: \(folder.path)/d.log, policies: [{name: a, limit: 1, window: 1s}]}\n"
            let nowhere = yaml("b.log", limits).replacing("\(folder.path)/b.log", with: "/nowhere/b.log")
            for text in [busy, unreadable, nowhere] {
                let status = try node.reload(text)
                #expect(status.contains("lastError"))
            }
            try eventually("one log is open still") {
                try threads() == 1 && files() == ["\(folder.path)/a.log"]
            }
        }
    }
}
