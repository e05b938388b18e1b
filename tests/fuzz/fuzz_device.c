/* SPDX-License-Identifier: ISC */
/* libvirt's XML of one device, and of one note in <metadata>, on a definition that has some of
 * each: what is accepted passes the rules. The first byte says what is done. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/define.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static Migrd__Domain *base_of(void)
{
    static const char text[] =
        "<domain type='xvm'><name>d</name><metadata><a xmlns='urn:a'/></metadata>"
        "<memory>65536</memory><os><type>linux</type><kernel>/k</kernel></os><devices>"
        "<disk type='file'><source file='/a'/><target dev='vda'/></disk>"
        "<interface type='bridge'><source bridge='br0'/><mac address='02:00:00:00:00:01'/>"
        "</interface></devices></domain>";
    struct err e;

    return define_parse(text, sizeof text - 1, DEFINE_XML, "f", NULL, 0, &e);
}

static void set_note(Migrd__Domain *d, const uint8_t *data, size_t len)
{
    char *xml = strndup((const char *)data, len);
    struct err e;

    if (xml != NULL && define_metadata_set(d, "urn:b", "b", xml, &e) == 0 &&
        define_check(d, &e) < 0)
        abort();
    free(xml);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    Migrd__Domain *d = base_of(), *next;
    struct err e;

    if (d == NULL)
        abort();
    if (len > 0 && data[0] % 4 == 3)
        set_note(d, data + 1, len - 1);
    else if (len > 0) {
        next = define_change_device(
            d, (const char *)data + 1, len - 1, (enum define_change)(data[0] % 4), &e);
        if (next != NULL && define_check(next, &e) < 0)
            abort();
        if (next != NULL)
            migrd__domain__free_unpacked(next, NULL);
    }
    migrd__domain__free_unpacked(d, NULL);
    return 0;
}
