/* A small loader for the objects that codegen makes: maps their code and constants, applies the few
 * relocations that they have, and refuses everything else by name.  No LLVM.
 * The bytes may come from a damaged cache: nothing in them is used as an offset, size or index
 * before it was checked (Tool Interface Standard ELF 1.2; System V ABI, AMD64 supplement, 4.4). */
#define _DEFAULT_SOURCE
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/backend/backend.h"
#include "src/base/status.h"

#if defined(__x86_64__)
enum { HOST_MACHINE = EM_X86_64 };
#elif defined(__aarch64__)
enum { HOST_MACHINE = EM_AARCH64 };
#else
enum { HOST_MACHINE = EM_NONE };
#endif

/* Sections and bytes that a kernel has no use for. */
enum { MOST_SECTIONS = 1024, MOST_BYTES = 64 << 20 };
/* Empty space before the first function: sanitizers look there for a function's type. */
enum { BEFORE_CODE = 64 };
static const uint64_t NOT_LOADED = UINT64_MAX;

typedef struct symbol {
    char *name; /* owned */
    void *address;
} symbol;

struct tw_image {
    char *memory; /* code, then constants, each whole pages */
    size_t size;
    symbol *symbols; /* the global functions */
    size_t count;
};

/* What is known of the object while it is loaded. */
typedef struct loader {
    const char *bytes;
    size_t size, page;
    Elf64_Ehdr header;
    Elf64_Shdr *sections;
    uint64_t *at;        /* a section's offset in the image, or NOT_LOADED */
    size_t code, whole;  /* bytes of the image: code alone, and all */
    int symtab;          /* section index, 0 without */
    uint64_t symbols;    /* entries of symtab */
    const char *names;   /* symtab's strings, */
    uint64_t names_size; /* which end with a NUL */
    tw_image *image;
} loader;

static tw_status damaged(const char *what) {
    tw_fail(TW_FORMAT, "object: %s", what);
    return TW_FORMAT;
}

/* Whether [offset, offset + size) lies within the object. */
static bool within(const loader *l, uint64_t offset, uint64_t size) {
    return offset <= l->size && size <= l->size - offset;
}

/* ---- headers ---- */

static tw_status read_header(loader *l) {
    if (!within(l, 0, sizeof l->header)) return damaged("shorter than an ELF header");
    Elf64_Ehdr *h = &l->header;
    memcpy(h, l->bytes, sizeof *h);
    if (memcmp(h->e_ident, ELFMAG, SELFMAG) || h->e_ident[EI_CLASS] != ELFCLASS64 ||
        h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_type != ET_REL)
        return damaged("not a relocatable little-endian ELF64 file");
    if (h->e_machine != HOST_MACHINE) {
        tw_fail(TW_FORMAT, "object: for ELF machine %u, this host is machine %d", h->e_machine,
                HOST_MACHINE);
        return TW_FORMAT;
    }
    if (h->e_shentsize != sizeof(Elf64_Shdr) || h->e_shnum == 0 || h->e_shnum > MOST_SECTIONS ||
        !within(l, h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr)))
        return damaged("its section headers lie outside the file");
    if (h->e_shstrndx >= h->e_shnum) return damaged("it has no section names");
    l->sections = calloc(h->e_shnum, sizeof *l->sections);
    l->at = calloc(h->e_shnum, sizeof *l->at);
    if (!l->sections || !l->at) {
        tw_fail(TW_MEMORY, "object: out of memory");
        return TW_MEMORY;
    }
    memcpy(l->sections, l->bytes + h->e_shoff, h->e_shnum * sizeof *l->sections);
    for (int i = 0; i < h->e_shnum; i++) {
        const Elf64_Shdr *s = &l->sections[i];
        l->at[i] = NOT_LOADED;
        if (s->sh_type != SHT_NOBITS && s->sh_type != SHT_NULL &&
            !within(l, s->sh_offset, s->sh_size))
            return tw_fail(TW_FORMAT, "object: section %d lies outside the file", i);
    }
    return TW_OK;
}

/* The string at `offset` of a string table, or NULL when it does not end within it. */
static const char *string_at(const char *table, uint64_t size, uint64_t offset) {
    if (offset >= size || !memchr(table + offset, 0, size - offset)) return NULL;
    return table + offset;
}

/* For sentences: a damaged name is shown as "?". */
static const char *section_name(const loader *l, int i) {
    const Elf64_Shdr *table = &l->sections[l->header.e_shstrndx];
    if (table->sh_type != SHT_STRTAB) return "?";
    const char *name =
        string_at(l->bytes + table->sh_offset, table->sh_size, l->sections[i].sh_name);
    return name ? name : "?";
}

/* ---- layout ---- */

/* Of the sections that occupy memory at run time, code and constants are known. */
static tw_status check_section(const loader *l, int i) {
    const Elf64_Shdr *s = &l->sections[i];
    const char *name = section_name(l, i);
    bool code = s->sh_flags & SHF_EXECINSTR;
    if (s->sh_type != SHT_PROGBITS || (s->sh_flags & (SHF_WRITE | SHF_TLS | SHF_GROUP)) ||
        strncmp(name, code ? ".text" : ".rodata", code ? 5 : 7))
        return tw_fail(TW_FORMAT, "object: section %.60s, only .text and .rodata are loaded", name);
    if (s->sh_addralign > l->page || (s->sh_addralign & (s->sh_addralign - 1)))
        return tw_fail(TW_FORMAT, "object: section %.60s is aligned to %llu bytes", name,
                       (unsigned long long)s->sh_addralign);
    return TW_OK;
}

/* Gives each section of one kind its place after `end`; sizes are bounded by the file's. */
static tw_status place(loader *l, uint64_t kind, size_t *end) {
    for (int i = 0; i < l->header.e_shnum; i++) {
        const Elf64_Shdr *s = &l->sections[i];
        if (!(s->sh_flags & SHF_ALLOC) || (s->sh_flags & SHF_EXECINSTR) != kind) continue;
        if (!s->sh_size) continue; /* compilers leave empty .data and .bss behind */
        TW_TRY(check_section(l, i));
        l->at[i] =
            (uint64_t)tw_round_up((int64_t)*end, (int64_t)tw_max((int64_t)s->sh_addralign, 1));
        if (s->sh_size > MOST_BYTES || l->at[i] + s->sh_size > MOST_BYTES)
            return tw_fail(TW_FORMAT, "object: more than %d bytes of code and data", MOST_BYTES);
        *end = l->at[i] + s->sh_size;
    }
    *end = (size_t)tw_round_up((int64_t)*end, (int64_t)l->page);
    return TW_OK;
}

static tw_status map_sections(loader *l) {
    bool has_code = false;
    l->code = BEFORE_CODE;
    TW_TRY(place(l, SHF_EXECINSTR, &l->code));
    l->whole = l->code;
    TW_TRY(place(l, 0, &l->whole));
    for (int i = 0; i < l->header.e_shnum; i++) has_code |= l->at[i] < l->code;
    if (!has_code) return damaged("it has no code");
    void *memory = mmap(NULL, l->whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return tw_fail(TW_MEMORY, "object: %zu bytes could not be mapped", l->whole);
    l->image->memory = memory;
    l->image->size = l->whole;
    for (int i = 0; i < l->header.e_shnum; i++)
        if (l->at[i] != NOT_LOADED)
            memcpy(l->image->memory + l->at[i], l->bytes + l->sections[i].sh_offset,
                   l->sections[i].sh_size);
    return TW_OK;
}

/* ---- symbols ---- */

static tw_status find_symbols(loader *l) {
    for (int i = 0; i < l->header.e_shnum; i++)
        if (l->sections[i].sh_type == SHT_SYMTAB) l->symtab = i;
    const Elf64_Shdr *s = &l->sections[l->symtab];
    if (!l->symtab || s->sh_entsize != sizeof(Elf64_Sym) || s->sh_link >= l->header.e_shnum)
        return damaged("it has no symbols");
    const Elf64_Shdr *strings = &l->sections[s->sh_link];
    if (strings->sh_type != SHT_STRTAB) return damaged("its symbols have no names");
    l->symbols = s->sh_size / sizeof(Elf64_Sym);
    l->names = l->bytes + strings->sh_offset;
    l->names_size = strings->sh_size;
    return TW_OK;
}

static Elf64_Sym symbol_entry(const loader *l, uint64_t i) {
    Elf64_Sym sym;
    memcpy(&sym, l->bytes + l->sections[l->symtab].sh_offset + i * sizeof sym, sizeof sym);
    return sym;
}

/* A symbol's offset in the image. */
static tw_status symbol_offset(const loader *l, uint64_t i, uint64_t *out) {
    if (i >= l->symbols) return damaged("a relocation names a symbol that does not exist");
    Elf64_Sym sym = symbol_entry(l, i);
    const char *name = string_at(l->names, l->names_size, sym.st_name);
    if (!name) return damaged("a symbol's name lies outside its table");
    if (sym.st_shndx == SHN_UNDEF)
        return tw_fail(TW_FORMAT, "object: undefined symbol %.60s", name);
    if (sym.st_shndx >= l->header.e_shnum || l->at[sym.st_shndx] == NOT_LOADED ||
        sym.st_value > l->sections[sym.st_shndx].sh_size)
        return tw_fail(TW_FORMAT, "object: symbol %.60s is not in code or constants", name);
    *out = l->at[sym.st_shndx] + sym.st_value;
    return TW_OK;
}

static tw_status keep_function(loader *l, uint64_t i) {
    Elf64_Sym sym = symbol_entry(l, i);
    if (ELF64_ST_TYPE(sym.st_info) != STT_FUNC || ELF64_ST_BIND(sym.st_info) != STB_GLOBAL ||
        sym.st_shndx == SHN_UNDEF)
        return TW_OK;
    uint64_t offset;
    TW_TRY(symbol_offset(l, i, &offset));
    if (offset >= l->code) return damaged("a function lies outside its code");
    symbol *s = &l->image->symbols[l->image->count];
    s->name = strdup(l->names + sym.st_name);
    if (!s->name) return tw_fail(TW_MEMORY, "object: out of memory");
    s->address = l->image->memory + offset;
    l->image->count++;
    return TW_OK;
}

static tw_status keep_functions(loader *l) {
    l->image->symbols = calloc(l->symbols + 1, sizeof *l->image->symbols);
    if (!l->image->symbols) return tw_fail(TW_MEMORY, "object: out of memory");
    for (uint64_t i = 1; i < l->symbols; i++) TW_TRY(keep_function(l, i));
    return TW_OK;
}

/* ---- relocations ---- */

/* Bytes that the relocation writes; 0 for one that is not known. */
static int relocation_width(uint32_t type) {
    if (HOST_MACHINE != EM_X86_64) return 0;
    switch (type) {
    case R_X86_64_64: return 8;
    case R_X86_64_PC32:
    case R_X86_64_PLT32: /* the target is local: no table is needed */
    case R_X86_64_32:
    case R_X86_64_32S: return 4;
    default: return 0;
    }
}

/* Whether `value` survives being cut to the relocation's 32 bits. */
static bool relocation_fits(uint32_t type, uint64_t value) {
    if (type == R_X86_64_64) return true;
    if (type == R_X86_64_32) return value <= UINT32_MAX;
    return (int64_t)value >= INT32_MIN && (int64_t)value <= INT32_MAX;
}

static tw_status relocate_one(loader *l, int section, const Elf64_Rela *r) {
    uint32_t type = (uint32_t)ELF64_R_TYPE(r->r_info);
    uint64_t width = (uint64_t)relocation_width(type), target;
    if (!width) return tw_fail(TW_FORMAT, "object: relocation type %u is not supported", type);
    uint64_t size = l->sections[section].sh_size;
    if (r->r_offset > size || width > size - r->r_offset)
        return tw_fail(TW_FORMAT, "object: a relocation lies outside section %.60s",
                       section_name(l, section));
    TW_TRY(symbol_offset(l, ELF64_R_SYM(r->r_info), &target));
    char *place = l->image->memory + l->at[section] + r->r_offset;
    uint64_t value = (uint64_t)(uintptr_t)l->image->memory + target + (uint64_t)r->r_addend;
    if (type == R_X86_64_PC32 || type == R_X86_64_PLT32) value -= (uint64_t)(uintptr_t)place;
    if (!relocation_fits(type, value))
        return tw_fail(TW_FORMAT, "object: relocation type %u in %.60s does not reach its target",
                       type, section_name(l, section));
    memcpy(place, &value, width);
    return TW_OK;
}

static tw_status relocate(loader *l) {
    for (int i = 0; i < l->header.e_shnum; i++) {
        const Elf64_Shdr *s = &l->sections[i];
        if (s->sh_type != SHT_RELA && s->sh_type != SHT_REL) continue;
        if (s->sh_info >= l->header.e_shnum)
            return damaged("relocations for a section that does not exist");
        if (l->at[s->sh_info] == NOT_LOADED) continue; /* of debug information */
        if (s->sh_type == SHT_REL || s->sh_entsize != sizeof(Elf64_Rela) ||
            s->sh_link != (uint32_t)l->symtab)
            return tw_fail(TW_FORMAT, "object: section %.60s is no relocation table of its symbols",
                           section_name(l, i));
        for (uint64_t k = 0; k < s->sh_size / sizeof(Elf64_Rela); k++) {
            Elf64_Rela r;
            memcpy(&r, l->bytes + s->sh_offset + k * sizeof r, sizeof r);
            TW_TRY(relocate_one(l, (int)s->sh_info, &r));
        }
    }
    return TW_OK;
}

/* ---- the whole ---- */

/* From here on the code can run and nothing of it can be written. */
static tw_status protect(loader *l) {
    char *memory = l->image->memory;
    __builtin___clear_cache(memory, memory + l->code);
    if (mprotect(memory, l->code, PROT_READ | PROT_EXEC) ||
        (l->whole > l->code && mprotect(memory + l->code, l->whole - l->code, PROT_READ)))
        return tw_fail(TW_UNSUPPORTED, "object: this system lets no process make code executable");
    return TW_OK;
}

static tw_status load(loader *l) {
    TW_TRY(read_header(l));
    TW_TRY(find_symbols(l));
    TW_TRY(map_sections(l));
    TW_TRY(relocate(l));
    TW_TRY(keep_functions(l));
    return protect(l);
}

tw_status tw_image_load(const void *object, size_t size, tw_image **out) {
    loader l = {.bytes = object, .size = size, .page = (size_t)sysconf(_SC_PAGESIZE)};
    l.image = calloc(1, sizeof *l.image);
    if (!l.image) return tw_fail(TW_MEMORY, "object: out of memory");
    tw_status status = load(&l);
    free(l.sections);
    free(l.at);
    if (status == TW_OK)
        *out = l.image;
    else
        tw_image_unload(l.image);
    return status;
}

void *tw_image_symbol(const tw_image *image, const char *name) {
    for (size_t i = 0; i < image->count; i++)
        if (!strcmp(image->symbols[i].name, name)) return image->symbols[i].address;
    return NULL;
}

void tw_image_unload(tw_image *image) {
    if (!image) return;
    if (image->memory) munmap(image->memory, image->size);
    for (size_t i = 0; i < image->count; i++) free(image->symbols[i].name);
    free(image->symbols);
    free(image);
}
