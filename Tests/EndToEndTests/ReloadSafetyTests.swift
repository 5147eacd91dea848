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
            let dead = "http://127.0.0.1:\(try freePort())"
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
}
