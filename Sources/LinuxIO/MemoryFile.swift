import CLinux
import Glibc

/// Text that one process leaves to another: a file without a name, in memory, that is passed on as a descriptor.
public enum MemoryFile {
    public static func make(_ text: String) throws(SystemError) -> Descriptor {
        let raw = sluice_memory_file()
        guard raw >= 0 else { throw .last("memfd_create") }
        let file = Descriptor(adopting: raw)
        try OutputFile.write(file, Array(text.utf8).span)
        return file
    }

    /// All of it, whoever has read it before; `nil` where it is no such file, or too long.
    public static func read(_ file: borrowing Descriptor, atMost bytesMax: Int) -> String? {
        guard let size = InputFile.size(file), size <= bytesMax else { return nil }
        var bytes = [UInt8](repeating: 0, count: size)
        let raw = file.raw
        guard retryingInterrupts({ unsafe pread(raw, &bytes, size, 0) }) == size else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }
}
