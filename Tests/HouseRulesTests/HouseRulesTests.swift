import Foundation
import Testing

/// Every rule of the house that a search can check.
let rules: [Rule] = [
    layerRule,
    .words(
        [
            "unsafe", "UnsafePointer", "UnsafeMutablePointer", "UnsafeRawPointer", "UnsafeMutableRawPointer",
            "UnsafeBufferPointer", "UnsafeMutableBufferPointer", "UnsafeRawBufferPointer",
            "UnsafeMutableRawBufferPointer",
            "OpaquePointer", "Unmanaged", "unsafeBitCast", "@unchecked", "nonisolated(unsafe)",
        ], onlyIn: ["LinuxIO", "Hiredis", "TLS", "Compression"], "unsafe code has four homes",
        breaking: "final class Box: @unchecked Sendable {}"),
    .words(
        [
            "Date", "ContinuousClock", "SuspendingClock", "clock_gettime", "gettimeofday", "time(nil", "DispatchTime",
            "CFAbsoluteTimeGetCurrent", "ProcessInfo.processInfo.systemUptime",
        ], onlyIn: ["LinuxIO"], "clocks are read in one module; elsewhere time is an argument",
        breaking: "let now = Date()"),
    .words(
        ["SystemRandomNumberGenerator", ".random()", "arc4random", "UUID("], onlyIn: ["LinuxIO"],
        "randomness comes from one module; elsewhere a seed is an argument",
        breaking: "var generator = SystemRandomNumberGenerator()"),
    .words(
        ["fatalError(", "try!", "as!"], "what can happen gets an error, not an end of the process",
        breaking: "let value = try! read()"),
    .words(["print("], onlyIn: ["sluice"], "events go to the log", breaking: "print(1)"),
    Rule(
        description: "no file is longer than 600 lines",
        check: { file in
            file.lines.count <= 600
                ? [] : [Breach(path: file.path, line: 601, reason: "\(file.lines.count) lines: it has two subjects")]
        },
        breaking: ("Gateway/MadeUp.swift", String(repeating: "\n", count: 601)),
        keeping: ("Gateway/MadeUp.swift", String(repeating: "\n", count: 599))),
    Rule(
        description: "nothing is left to do",
        check: { file in
            file.lines.enumerated().compactMap { index, line in
                line.contains("TODO") || line.contains("FIXME") || line.contains("XXX")
                    ? Breach(path: file.path, line: index + 1, reason: "do it, or leave it out") : nil
            }
        },
        breaking: ("Gateway/MadeUp.swift", "// TODO: later\n"),
        keeping: ("Gateway/MadeUp.swift", "// To be done never.\n")),
]

@Suite("House rules")
struct HouseRulesTests {
    /// All Swift files below `Sources`.
    private static func sources(file: String = #filePath) throws -> [SourceFile] {
        let root = URL(fileURLWithPath: file).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Sources")
        let names = try FileManager.default.subpathsOfDirectory(atPath: root.path).filter { $0.hasSuffix(".swift") }
        return try names.sorted().map { name in
            SourceFile(path: name, text: try String(contentsOf: root.appendingPathComponent(name), encoding: .utf8))
        }
    }

    @Test("the sources keep the rule", arguments: rules)
    func kept(rule: Rule) throws {
        let files = try Self.sources()
        #expect(files.count > 50)
        for breach in files.flatMap(rule.check) { Issue.record("Sources/\(breach)") }
    }

    @Test("the rule finds what breaks it, at its line, and leaves the rest alone", arguments: rules)
    func canFail(rule: Rule) {
        let breaches = rule.check(SourceFile(path: rule.breaking.path, text: rule.breaking.text))
        #expect(!breaches.isEmpty)
        #expect(breaches.allSatisfy { $0.path == rule.breaking.path && $0.line >= 1 })
        let kept = rule.check(SourceFile(path: rule.keeping.path, text: rule.keeping.text))
        #expect(kept.isEmpty, "\(kept)")
    }

    @Test("words count as code only, and whole")
    func words() {
        let rule = Rule.words(["unsafe", "Date"], "no", breaking: "unsafe")
        func lines(_ text: String) -> [Int] { rule.check(SourceFile(path: "A/b.swift", text: text)).map(\.line) }
        #expect(lines("unsafe x") == [1])
        #expect(lines("a\nb(unsafe c)\n\nDate()") == [2, 4])
        #expect(lines("// unsafe\n/* unsafe\n /* a */ Date */ unsafe") == [3])
        #expect(lines("\"unsafe\" + \"a \\\" unsafe\"") == [])
        #expect(lines("\"\"\"\nunsafe\n\"\"\"\nunsafe") == [4])
        #expect(lines("unsafely Dated updateDate isDate unsafe2") == [])
    }

    @Test("imports are seen in every form")
    func imports() {
        #expect(importedModule("import A") == "A")
        #expect(importedModule("package import A") == "A")
        #expect(importedModule("@testable import A") == "A")
        #expect(importedModule("import struct A.B") == "A")
        #expect(importedModule("let important = 1") == nil)
        #expect(importedModule("imports A") == nil)
    }
}
