import Foundation
import Testing

@testable import Configuration

@Suite("Files")
struct FileTests {
    /// Runs `body` with the path of a file that holds the bytes.
    private func with(_ bytes: [UInt8], _ body: (String) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("sluice-\(UUID()).yaml").path
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(path)
    }

    private func loadErrors(_ path: String) -> [String] {
        do throws(ConfigurationErrors) {
            _ = try Configuration.load(path: path, environment: [:])
            return []
        } catch {
            return error.errors.map(\.description)
        }
    }

    @Test("a missing file is named")
    func missing() {
        #expect(loadErrors("/nowhere/f.yaml") == ["/nowhere/f.yaml: there is no such file; name another with --config"])
    }

    @Test(
        "what is no file is refused at once",
        arguments: [("/", "a directory"), ("/dev/zero", "a device"), ("/dev/null", "a device")])
    func noFile(path: String, what: String) {
        #expect(loadErrors(path) == ["\(path): \(what), not a file; name another with --config"])
    }

    @Test("a pipe is read to its end, but not waited for as long as it likes", arguments: [true, false])
    func pipe(isWritten: Bool) throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("sluice-\(UUID()).pipe").path
        #expect(unsafe mkfifo(path, 0o600) == 0)
        defer { try? FileManager.default.removeItem(atPath: path) }
        guard isWritten else {
            let error = "a pipe that nobody has written to its end in time; name another with --config"
            #expect(loadErrors(path) == ["\(path): \(error)"])
            return
        }
        let text = file() + "\n" + String(repeating: "# long\n", count: 20_000)
        Thread.detachNewThread { try? Data(text.utf8).write(to: URL(fileURLWithPath: path)) }
        #expect(loadErrors(path) == [])
    }

    @Test("an empty file says what it needs")
    func empty() throws {
        try with([]) { #expect(loadErrors($0) == ["\($0):1:1: the file is empty; it needs at least one service"]) }
    }

    @Test("a file of the largest size loads, one byte more does not")
    func size() throws {
        let text = Array((file() + "\n").utf8)
        let padding = [UInt8](repeating: UInt8(ascii: "#"), count: (1 << 20) - text.count)
        try with(text + padding) { #expect(loadErrors($0) == []) }
        try with(text + padding + [0x0a]) { path in
            #expect(loadErrors(path) == ["\(path): larger than 1048576 bytes; is it the right file?"])
        }
    }

    @Test("a byte order mark is skipped")
    func mark() throws {
        try with([0xef, 0xbb, 0xbf] + Array(file(gateway: "  prot: 1").utf8)) { path in
            #expect(loadErrors(path) == ["\(path):2:3: gateway.prot: unknown key (did you mean gateway.port?)"])
        }
    }

    @Test(
        "what is not UTF-8 says where",
        arguments: [
            ([0xff, 0xfe], 1, 1), (Array("a: 1\nbä: ".utf8) + [0xe4], 2, 5), (Array("a\n\n".utf8) + [0xc3], 3, 1),
            (Array("a".utf8) + [0xed, 0xa0, 0x80], 1, 2),
        ] as [([UInt8], Int, Int)])
    func encoding(_ bytes: [UInt8], _ line: Int, _ column: Int) throws {
        try with(bytes) { path in
            #expect(loadErrors(path) == ["\(path):\(line):\(column): not UTF-8; save the file in that encoding"])
        }
    }

    @Test("random bytes never crash")
    func noise() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<50 {
            let bytes = (0..<200).map { _ in UInt8.random(in: 0...255, using: &generator) }
            try with(bytes) { #expect(!loadErrors($0).isEmpty) }
        }
    }
}
