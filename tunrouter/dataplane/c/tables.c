/* Hash tables of the packet's way: receiver index, session and node to their records, and prefixes to nodes.
 *
 * Open addressing with linear probing, never more than half full, so a look-up ends after few steps at any size. Nobody
 * but control, which draws indices at random and takes node ids from signed keys, decides what stands in them.
 */

#include <stdlib.h>

#include "bytes.h"
#include "kernel.h"

enum { FIRST_SIZE = 64 };

static uint64_t mix(uint64_t key) { /* the finaliser of SplitMix64 (Steele, Lea, Flood 2014) */
    key ^= key >> 30;
    key *= 0xbf58476d1ce4e5b9u;
    key ^= key >> 27;
    key *= 0x94d049bb133111ebu;
    return key ^ key >> 31;
}

/* --- numbers ---------------------------------------------------------------------------------------------------- */

bool table_open(struct table *table) {
    table->entries = calloc(FIRST_SIZE, sizeof *table->entries);
    table->mask = FIRST_SIZE - 1;
    table->used = 0;
    return table->entries != NULL;
}

void table_close(struct table *table) {
    free(table->entries);
}

/* Where `key` stands, or the free place where it would. */
static uint32_t place(const struct table *table, uint64_t key) {
    uint32_t at = (uint32_t)mix(key) & table->mask;
    while (table->entries[at].value && table->entries[at].key != key)
        at = (at + 1) & table->mask;
    return at;
}

void *table_get(const struct table *table, uint64_t key) {
    return table->entries[place(table, key)].value;
}

static bool grow(struct table *table) {
    struct table larger = {.mask = table->mask * 2 + 1, .used = table->used};
    larger.entries = calloc((size_t)larger.mask + 1, sizeof *larger.entries);
    if (!larger.entries)
        return false;
    for (uint32_t at = 0; at <= table->mask; at++)
        if (table->entries[at].value)
            larger.entries[place(&larger, table->entries[at].key)] = table->entries[at];
    free(table->entries);
    *table = larger;
    return true;
}

bool table_put(struct table *table, uint64_t key, void *value) {
    if (table->used > table->mask / 2 && !grow(table))
        return false;
    table->entries[place(table, key)] = (struct entry){.key = key, .value = value};
    table->used++;
    return true;
}

/* Closes the gap (Knuth 6.4 R): whoever stands behind it and was pushed there moves up. */
void table_remove(struct table *table, uint64_t key) {
    uint32_t gap = place(table, key);
    if (!table->entries[gap].value)
        return;
    table->used--;
    for (uint32_t at = (gap + 1) & table->mask; table->entries[at].value; at = (at + 1) & table->mask) {
        uint32_t home = (uint32_t)mix(table->entries[at].key) & table->mask;
        if (((at - home) & table->mask) >= ((at - gap) & table->mask)) {
            table->entries[gap] = table->entries[at];
            gap = at;
        }
    }
    table->entries[gap].value = NULL;
}

/* --- prefixes ---------------------------------------------------------------------------------------------------- */

bool routes_open(struct routes *routes) {
    memset(routes, 0, sizeof *routes);
    routes->entries = calloc(FIRST_SIZE, sizeof *routes->entries);
    routes->mask = FIRST_SIZE - 1;
    return routes->entries != NULL;
}

void routes_close(struct routes *routes) {
    free(routes->entries);
}

/* The first `length` bits of an address, the rest zero: `length` is at most 8 * `address`. */
static void prefix_of(uint8_t *to, const uint8_t *at, uint32_t address, uint32_t length) {
    uint32_t whole = length / 8;
    memset(to, 0, 16);
    memcpy(to, at, whole);
    if (whole < address)
        to[whole] = at[whole] & (uint8_t)(0xff00u >> length % 8);
}

static uint32_t hash(const uint8_t *prefix, uint32_t address, uint32_t length) {
    uint64_t high = get64(prefix), low = get64(prefix + 8);
    return (uint32_t)mix(high ^ mix(low ^ (address << 8 | length)));
}

static uint32_t route_place(const struct routes *routes, const uint8_t *prefix, uint32_t address, uint32_t length) {
    uint32_t at = hash(prefix, address, length) & routes->mask;
    for (;; at = (at + 1) & routes->mask) {
        const struct route *entry = &routes->entries[at];
        if (!entry->address)
            return at;
        if (entry->address == address && entry->length == length && !memcmp(entry->prefix, prefix, 16))
            return at;
    }
}

static bool routes_grow(struct routes *routes) {
    uint32_t mask = routes->mask, larger = mask * 2 + 1;
    struct route *old = routes->entries, *entries = calloc((size_t)larger + 1, sizeof *entries);
    if (!entries)
        return false;
    routes->entries = entries;
    routes->mask = larger;
    for (uint32_t at = 0; at <= mask; at++)
        if (old[at].address)
            entries[route_place(routes, old[at].prefix, old[at].address, old[at].length)] = old[at];
    free(old);
    return true;
}

static void lengths_changed(struct routes *routes, uint32_t family) {
    uint32_t count = 0;
    for (uint32_t length = 129; length-- > 0;)
        if (routes->of_length[family][length])
            routes->lengths[family][count++] = (uint8_t)length;
    routes->length_count[family] = count;
}

static uint32_t family_of(uint32_t address) {
    return address == 16;
}

bool routes_add(struct routes *routes, const uint8_t *prefix, uint32_t address, uint32_t length, uint64_t node) {
    struct route route = {.address = (uint8_t)address, .length = (uint8_t)length, .node = node};
    if ((address != 4 && address != 16) || length > address * 8)
        return false;
    prefix_of(route.prefix, prefix, address, length);
    uint32_t at = route_place(routes, route.prefix, address, length);
    if (!routes->entries[at].address) {
        if (routes->used >= MAX_ROUTES || (routes->used > routes->mask / 2 && !routes_grow(routes)))
            return false;
        at = route_place(routes, route.prefix, address, length);
        routes->used++;
        routes->of_length[family_of(address)][length]++;
        lengths_changed(routes, family_of(address));
    }
    routes->entries[at] = route;
    return true;
}

void routes_remove(struct routes *routes, const uint8_t *prefix, uint32_t address, uint32_t length) {
    uint8_t masked[16];
    if ((address != 4 && address != 16) || length > address * 8)
        return;
    prefix_of(masked, prefix, address, length);
    uint32_t gap = route_place(routes, masked, address, length);
    if (!routes->entries[gap].address)
        return;
    routes->used--;
    routes->of_length[family_of(address)][length]--;
    lengths_changed(routes, family_of(address));
    for (uint32_t at = (gap + 1) & routes->mask; routes->entries[at].address; at = (at + 1) & routes->mask) {
        const struct route *entry = &routes->entries[at];
        uint32_t home = hash(entry->prefix, entry->address, entry->length) & routes->mask;
        if (((at - home) & routes->mask) >= ((at - gap) & routes->mask)) {
            routes->entries[gap] = *entry;
            gap = at;
        }
    }
    routes->entries[gap].address = 0;
}

bool routes_owner(const struct routes *routes, const uint8_t *at, uint32_t address, uint64_t *node) {
    uint32_t family = family_of(address);
    for (uint32_t i = 0; i < routes->length_count[family]; i++) {
        uint8_t prefix[16];
        uint32_t length = routes->lengths[family][i];
        prefix_of(prefix, at, address, length);
        const struct route *entry = &routes->entries[route_place(routes, prefix, address, length)];
        if (entry->address) {
            *node = entry->node;
            return true;
        }
    }
    return false;
}
