/* One lock and one condition a table: what is made here takes milliseconds, and entries are
 * few. */
#include "src/flight.h"

#include <string.h>

#include "src/base/alloc.h"
#include "src/base/status.h"

void tw_flights_init(tw_flights *flights, const tw_allocator *allocator,
                     void (*destroy)(void *user, void *value), void *user) {
    *flights = (tw_flights){.allocator = allocator, .destroy = destroy, .user = user};
    pthread_mutex_init(&flights->lock, NULL);
    pthread_cond_init(&flights->changed, NULL);
}

void tw_flights_free(tw_flights *flights) {
    pthread_cond_destroy(&flights->changed);
    pthread_mutex_destroy(&flights->lock);
}

static tw_flight *find(tw_flights *flights, const void *key, size_t key_size) {
    tw_flight *flight = flights->first;
    while (flight && (flight->forgotten || flight->key_size != key_size ||
                      memcmp(flight->key, key, key_size) != 0))
        flight = flight->next;
    return flight;
}

static void free_entry(tw_flights *flights, tw_flight *flight) {
    tw_free(flights->allocator, flight, sizeof *flight + flight->key_size);
}

static void unlink_entry(tw_flights *flights, tw_flight *flight) {
    tw_flight **at = &flights->first;
    while (*at && *at != flight) at = &(*at)->next;
    if (*at) *at = flight->next;
}

static tw_flight *insert(tw_flights *flights, const void *key, size_t key_size) {
    tw_flight *flight = tw_alloc(flights->allocator, sizeof *flight + key_size);
    if (!flight) return NULL;
    flight->key_size = key_size;
    flight->users = 1;
    memcpy(flight->key, key, key_size);
    flight->next = flights->first;
    flights->first = flight;
    return flight;
}

/* Waits for somebody else's attempt; the lock is held. */
static tw_status join(tw_flights *flights, tw_flight *flight) {
    flight->users++;
    while (flight->state == TW_FLIGHT_MAKING) pthread_cond_wait(&flights->changed, &flights->lock);
    if (flight->state == TW_FLIGHT_READY) return TW_OK;
    tw_status status = tw_fail(flight->status, "%s", flight->message);
    if (!--flight->users) free_entry(flights, flight);
    return status;
}

/* Records how the attempt of this thread ended; the lock is held. */
static tw_status settle(tw_flights *flights, tw_flight *flight, tw_status status, void *value) {
    flight->status = status;
    flight->value = value;
    flight->state = status == TW_OK ? TW_FLIGHT_READY : TW_FLIGHT_FAILED;
    pthread_cond_broadcast(&flights->changed);
    if (status == TW_OK) return TW_OK;
    unlink_entry(flights, flight);
    size_t size = strlen(tw_error_message());
    size = size < sizeof flight->message ? size : sizeof flight->message - 1;
    memcpy(flight->message, tw_error_message(), size);
    flight->message[size] = 0;
    if (!--flight->users) free_entry(flights, flight);
    return status;
}

tw_status tw_flights_get(tw_flights *flights, const void *key, size_t key_size,
                         tw_status (*make)(void *arg, void **value), void *arg, void **out) {
    pthread_mutex_lock(&flights->lock);
    tw_flight *flight = find(flights, key, key_size);
    tw_status status = TW_OK;
    if (flight) {
        status = join(flights, flight);
    } else if (!(flight = insert(flights, key, key_size))) {
        status = tw_fail(TW_MEMORY, "out of memory for a plan");
    } else {
        void *value = NULL;
        pthread_mutex_unlock(&flights->lock);
        status = make(arg, &value);
        pthread_mutex_lock(&flights->lock);
        status = settle(flights, flight, status, value);
    }
    if (status == TW_OK) *out = flight->value;
    pthread_mutex_unlock(&flights->lock);
    return status;
}

void *tw_flights_find(tw_flights *flights, const void *key, size_t key_size) {
    pthread_mutex_lock(&flights->lock);
    tw_flight *flight = find(flights, key, key_size);
    if (flight && flight->state != TW_FLIGHT_READY) flight = NULL;
    if (flight) flight->users++;
    pthread_mutex_unlock(&flights->lock);
    return flight ? flight->value : NULL;
}

void tw_flights_forget(tw_flights *flights, void *value) {
    pthread_mutex_lock(&flights->lock);
    for (tw_flight *flight = flights->first; flight; flight = flight->next)
        flight->forgotten = flight->forgotten || flight->value == value;
    pthread_mutex_unlock(&flights->lock);
}

void tw_flights_release(tw_flights *flights, void *value) {
    pthread_mutex_lock(&flights->lock);
    tw_flight *flight = flights->first;
    while (flight && flight->value != value) flight = flight->next;
    bool last = flight && !--flight->users;
    if (last) unlink_entry(flights, flight);
    pthread_mutex_unlock(&flights->lock);
    if (!last) return;
    flights->destroy(flights->user, value);
    free_entry(flights, flight);
}
