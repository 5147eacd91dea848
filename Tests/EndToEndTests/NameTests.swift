import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Names of backends", .serialized)
struct NameTests {
    @Test(
        "a name that no server answers for holds up neither the start nor other services nor the end",
        .enabled(if: SilentNameServer.refusal == nil, Comment(rawValue: SilentNameServer.refusal ?? "")))
    func silent() throws {
        try Scene.play { scene in
            let server = try SilentNameServer()
            let backend = try scene.backend()
            let file = File([
                File.Service(name: "here", path: "/here", urls: [backend.url]),
                File.Service(name: "nowhere", path: "/nowhere", urls: ["http://nowhere.example:81"]),
                File.Service(name: "local", path: "/local", urls: ["http://localhost:\(backend.address.port)"]),
            ])
            let node = try scene.node(file, in: server.program)
            #expect(try node.ask("GET /here HTTP/1.1").text == "ok")
            #expect(try node.ask("GET /local HTTP/1.1").text == "ok")
            #expect(try node.ask("GET /nowhere HTTP/1.1").status == 502)
            #expect(node.log.contains("no name server has answered for nowhere.example yet"))
            node.process.signal(SIGTERM)
            #expect(try node.process.waitForExit() == 0)
            // All this while the lookup, which takes half a minute, was under way.
            #expect(!node.log.contains("does not resolve"), "\(node.log)")
        }
    }
}
