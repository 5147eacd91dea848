import Foundation
import Testing

/// The inputs that fuzzing has found worth keeping, and those that broke something once.
@Suite("The corpus of the fuzzer breaks no promise")
struct CorpusTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Corpus")

    @Test("each target takes its inputs", arguments: fuzzTargets)
    func replay(target: FuzzTarget) throws {
        let folder = Self.folder.appendingPathComponent(target.name)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        #expect(!names.isEmpty)
        let check = try target.make()
        for name in names {
            let input = try Data(contentsOf: folder.appendingPathComponent(name))
            #expect(throws: Never.self, "\(target.name)/\(name)") { try check(Array(input)) }
        }
    }

    @Test("each folder belongs to a target")
    func folders() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
        #expect(Set(names) == Set(fuzzTargets.map(\.name)))
    }
}
